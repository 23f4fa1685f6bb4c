"""Low-rank updates against all weights: quality, parameters, peak memory and seconds.

MiniLM, one epoch of Lyft's pairs, texts cut to 128 tokens while training, measured on Uber's; each
in a process of its own, for its peak memory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from _data import arguments, lyft_and_uber
from _embedding import tune

SHORT = {"max_length": 128, "epochs": 1}
VARIANTS = {
    "all weights": {},
    "LoRA, rank 16": {"lora_rank": 16, "learning_rate": 5e-4},
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--variant", choices=VARIANTS)
    args = parser.parse_args()
    if args.variant is None:
        for name in VARIANTS:
            subprocess.run([sys.executable, *sys.argv, "--variant", name], check=True)
        return
    warnings.simplefilter("ignore")
    train, test = lyft_and_uber(args.data)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tuned"
        tune(args.variant, train, test, out, args.cache, **SHORT, **VARIANTS[args.variant])


if __name__ == "__main__":
    main()
