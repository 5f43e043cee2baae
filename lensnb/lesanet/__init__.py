"""LesaNet (Yan et al., CVPR 2019): labels of lesions from reports, and the embedding that mining stands on.

`report_labels` makes labels of sentences, `study` trains and judges networks, `recognition` is what mining uses, and
`naming` what `python -m lensnb detect` uses. The ontology and the text mining need no torch: writing phantoms starts
many processes that read them.
"""
