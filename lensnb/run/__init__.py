"""Running the story: its steps, what is out of date, notebooks executed, results published.

nbformat loads a grammar of international web addresses, for three to six seconds in every process, where a package of
jupyterlab's has brought it. No check of a notebook needs it, and jsonschema does without where it is not there.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)
