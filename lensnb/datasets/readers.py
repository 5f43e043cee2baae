"""The reader of each dataset; `lensnb.datasets` names it and says what a reader must do."""

from importlib import import_module

from lensnb.datasets import DATASETS

READERS = {name: import_module(f"lensnb.datasets.{dataset.reader}") for name, dataset in DATASETS.items()}
