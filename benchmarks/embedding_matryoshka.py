"""Vectors that may be cut: nDCG@10 on Uber at 384, 192, 96 and 48 dimensions.

MiniLM, trained for one epoch on Lyft's pairs, texts cut to 128 tokens while training, by multiple
negatives ranking within a Matryoshka loss (Kusupati et al. 2022), against the untuned model's
vectors cut to the same length.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from _data import arguments, lyft_and_uber
from _embedding import show, tune

DIMS = (384, 192, 96, 48)
SHORT = {"max_length": 128, "epochs": 1}


def main() -> None:
    args = arguments(__doc__).parse_args()
    warnings.simplefilter("ignore", UserWarning)
    train, test = lyft_and_uber(args.data)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tuned"
        report = tune("384", train, test, out, args.cache, **SHORT, matryoshka_dims=DIMS)
    for dim in DIMS[1:]:
        show(str(dim), report.slices[f"first {dim} dimensions"])


if __name__ == "__main__":
    main()
