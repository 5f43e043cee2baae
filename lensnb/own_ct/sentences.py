"""One's own report sentences: the command `labels`."""

from pathlib import Path

from lensnb.files import check_output
from lensnb.lesanet.label_files import RELATIONS
from lensnb.lesanet.report_labels import label_sentences
from lensnb.phantom.practice import practice
from lensnb.settings import load_profile


def command(sentences: Path, ontology: Path, output: Path, examples: Path | None) -> str:
    """Write what the sentences say of the lesions that they link; return how many labels of each relation there are.

    Without `examples` the relations are learned from sentences that the phantoms' radiologists write. ValueError if
    `output` can not be written or is no .csv or .npz, before anything is learned.
    """
    check_output(output, "--output", (".csv", ".npz"), (sentences, ontology))
    known = examples or practice(load_profile("phantom").phantom)
    counts = label_sentences(sentences, ontology, output, known)["relation"].value_counts()
    return f"{', '.join(f'{counts.get(name, 0)} {name}' for name in RELATIONS)} labels in {output}"
