"""Is a label that a sentence mentions relevant for the lesion of its bookmark, uncertain, or irrelevant?

A small CNN after Peng et al. (LesaNet Sec. 3.2). It sees one mention at a time: the words of the sentence, in which
every mention is one symbol for its kind and the mention in question another, and for each word how far it is from the
mention and from the bookmark. Windows of three and five words are scored and the best of each kept; to these comes
the mean of the words, in place of the paper's sentence embedding. So what is learned are the words around labels, not
the labels, and the relations learned from one ontology serve another.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensnb.lesanet.label_files import RELATIONS
from lensnb.lesanet.text_mining import BOOKMARK, Mention, Token, tokenize

FARTHEST = 12  # words; whatever is farther counts as that far
LONGEST = 80  # words of a sentence around the mention
PADDING, UNKNOWN = 0, 1
SYMBOLS = ("<padding>", "<unknown>", "<number>")


@dataclass(frozen=True)
class EncodedMentions:
    """Mentions as the network sees them: word, distance to the mention and to the bookmark, int64 (n, LONGEST)."""

    words: np.ndarray
    to_mention: np.ndarray
    to_bookmark: np.ndarray


class RelationNet(nn.Module):
    """Words with two distances each in, logits of RELATIONS out."""

    def __init__(self, vocabulary: list[str], width: int = 32, channels: int = 64):
        super().__init__()
        self.vocabulary = vocabulary
        self.words = nn.Embedding(len(vocabulary), width, padding_idx=PADDING)
        self.to_mention = nn.Embedding(2 * FARTHEST + 2, 8, padding_idx=PADDING)
        self.to_bookmark = nn.Embedding(2 * FARTHEST + 2, 8, padding_idx=PADDING)
        self.windows = nn.ModuleList(nn.Conv1d(width + 16, channels, size, padding=size // 2) for size in (3, 5))
        self.scores = nn.Linear(2 * channels + width, len(RELATIONS))

    def forward(self, words: Tensor, to_mention: Tensor, to_bookmark: Tensor) -> Tensor:
        """int64 (n, length) each to logits (n, 3)."""
        there = (words != PADDING)[:, None]
        word = self.words(words)
        x = torch.cat([word, self.to_mention(to_mention), self.to_bookmark(to_bookmark)], dim=2).transpose(1, 2)
        pooled = [F.relu(window(x)).masked_fill(~there, 0).amax(2) for window in self.windows]
        mean = (word.transpose(1, 2) * there).sum(2) / there.sum(2).clamp(min=1)
        return self.scores(F.dropout(torch.cat([*pooled, mean], dim=1), 0.4, self.training))


def symbols(tokens: list[Token], mentions: list[Mention], kinds: list[str], target: int) -> tuple[list[str], int, int]:
    """A sentence as the network reads it, and where in it the mention number `target` and its bookmark stand.

    Each mention is one symbol, as "<type>"; the mention in question is "<this type>". Of mentions that overlap, those
    that come after are left out, but the one in question stays. Numbers are all alike. Of several bookmarks, the one
    nearest to the mention counts.
    """
    own = mentions[target]
    found, at, bookmarks, i = [], 0, [], 0
    starts = {m.first: (m, kind) for m, kind in zip(mentions, kinds, strict=True)}
    while i < len(tokens):
        if i == own.first:
            at = len(found)
            found.append(f"<this {kinds[target]}>")
            i = own.last + 1
        elif i in starts:
            mention, kind = starts[i]
            found.append(f"<{kind}>")
            i = mention.last + 1
            if mention.first < own.first < i:
                i = own.first
        else:
            token = tokens[i]
            if token.text == BOOKMARK:
                bookmarks.append(len(found))
            found.append("<number>" if token.text.isdigit() else token.base)
            i += 1
    return found, at, min(bookmarks, key=lambda place: abs(place - at), default=at)


def read_symbols(table: pd.DataFrame, mentions: pd.DataFrame) -> list[tuple[list[str], int, int]]:
    """`symbols` of each row of `mentions` (sentence_number, start, end, kind) in the sentences of `table`."""
    sentences, found = table["sentence"].tolist(), [None] * len(mentions)
    places = np.arange(len(mentions))
    for number, rows in pd.Series(places).groupby(mentions["sentence_number"].to_numpy()):
        tokens = tokenize(sentences[number])
        own = mentions.iloc[rows.to_numpy()]
        spans = [
            Mention(
                0,
                next(i for i, token in enumerate(tokens) if token.end > start),
                max(i for i, token in enumerate(tokens) if token.start < end),
            )
            for start, end in zip(own["start"], own["end"], strict=True)
        ]
        for k, row in enumerate(rows):
            found[row] = symbols(tokens, spans, own["kind"].tolist(), k)
    return found


def vocabulary_of(listed: list[tuple[list[str], int, int]], least: int = 2) -> list[str]:
    """All symbols that occur `least` times or more, after the fixed ones."""
    counts = pd.Series([word for words, _, _ in listed for word in words]).value_counts()
    frequent = sorted(word for word, count in counts.items() if count >= least)
    return [*SYMBOLS, *(word for word in frequent if word not in SYMBOLS)]


def encode(listed: list[tuple[list[str], int, int]], vocabulary: list[str]) -> EncodedMentions:
    """Symbols as numbers; a sentence longer than LONGEST is cut to the words around the mention."""
    number = {word: i for i, word in enumerate(vocabulary)}
    arrays = np.zeros((3, len(listed), LONGEST), dtype=np.int64)
    for row, (words, mention, bookmark) in enumerate(listed):
        first = max(0, min(mention - LONGEST // 2, len(words) - LONGEST))
        kept = np.arange(first, min(len(words), first + LONGEST))
        arrays[0, row, : len(kept)] = [number.get(words[i], UNKNOWN) for i in kept]
        arrays[1, row, : len(kept)] = np.clip(kept - mention, -FARTHEST, FARTHEST) + FARTHEST + 1
        arrays[2, row, : len(kept)] = np.clip(kept - bookmark, -FARTHEST, FARTHEST) + FARTHEST + 1
    return EncodedMentions(*arrays)


def train_relations(table: pd.DataFrame, mentions: pd.DataFrame, seed: int = 0, epochs: int = 30) -> RelationNet:
    """Learn relations from mentions that have one (sentence_number, start, end, kind, relation) in sentences.

    Raises ValueError if there are no mentions or a relation is none of RELATIONS.
    """
    wrong = sorted(set(mentions["relation"]) - set(RELATIONS))
    if wrong or not len(mentions):
        raise ValueError(
            f"relations to learn from: {', '.join(wrong) or 'none'}; they should be {', '.join(RELATIONS)}"
        )
    listed = read_symbols(table, mentions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RelationNet(vocabulary_of(listed))
        examples = [torch.from_numpy(a) for a in vars(encode(listed, model.vocabulary)).values()]
        truth = torch.tensor([RELATIONS.index(relation) for relation in mentions["relation"]])
        counts = torch.bincount(truth, minlength=len(RELATIONS)).clamp(min=1)
        weight = (len(truth) / counts).sqrt()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-5)
        for _ in range(epochs):
            for rows in torch.randperm(len(truth)).split(64):
                words, *distances = (a[rows] for a in examples)
                # a word in ten is taken for an unknown one, as sentences of other people will have such
                words = torch.where((torch.rand(words.shape) < 0.1) & (words != PADDING), UNKNOWN, words)
                loss = F.cross_entropy(model(words, *distances), truth[rows], weight=weight)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()


@torch.no_grad()
def relate(model: RelationNet, table: pd.DataFrame, mentions: pd.DataFrame) -> pd.DataFrame:
    """Mentions with the columns relation, and probability of that relation, added."""
    if not len(mentions):
        return mentions.assign(relation=pd.Series(dtype=str), probability=pd.Series(dtype=float))
    examples = encode(read_symbols(table, mentions), model.vocabulary)
    parts = zip(*(torch.from_numpy(a).split(512) for a in vars(examples).values()), strict=True)
    probability = torch.cat([model(*part).softmax(1) for part in parts]).numpy()
    best = probability.argmax(1)
    relation = [RELATIONS[i] for i in best]
    return mentions.assign(relation=relation, probability=np.round(probability.max(1).astype(np.float64), 4))
