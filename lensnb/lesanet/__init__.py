"""LesaNet (Yan et al., CVPR 2019): labels of lesions from reports, and the embedding that mining stands on.

What mining uses can be called from here: `lesanet.train_for_profile`, `lesanet.load`, `lesanet.embed`. The ontology
and the text mining need no torch, and writing phantoms starts many processes that read them, so the networks'
names are looked up in `embedding` only when somebody asks for one.
"""

EMBEDDING = (
    "LesaNet", "embed", "label_similarity", "label_weights", "load", "read_labels", "sample_triplets",
    "train_embedding", "train_for_profile", "triplet_loss", "weighted_cross_entropy",
)  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in EMBEDDING:
        raise AttributeError(f"lensnb.lesanet has no {name}")
    from lensnb.lesanet import embedding

    return getattr(embedding, name)
