"""The reader of each dataset; `lensnb.datasets` says what a reader must do."""

from lensnb.datasets import deeplesion, lits, luna16, nih_ln

READERS = {reader.NAME: reader for reader in (deeplesion, luna16, lits, nih_ln)}
