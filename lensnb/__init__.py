"""lensnb: universal lesion detection in CT from heterogeneous and partial labels (LENS, Yan et al. 2020)."""

__version__ = "0.1.0"
