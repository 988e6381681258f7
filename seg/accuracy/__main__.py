"""Write the table of accuracy: ``python -m seg.accuracy --out DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import pandas as pd

from seg import __version__
from seg.accuracy import SCENES, as_markdown, n_twins, run
from seg.accuracy.trials import COLUMNS
from seg.io.results import write_table

logger = logging.getLogger(__name__)

HEAD = """# Accuracy

Made by `python -m seg.accuracy --out DIR{options}`, version {version}: {twins} small twins with exact truth, measured
from masks with the faults below. Bias is the mean and spread the standard deviation of the errors (% of the truth,
degrees, or plain numbers); brackets hold the exact 95 % interval of a share. A number is refused where the product
flags it and gives none.

- **exact**: a pixel belongs to an object where its centre does. Intervals allow for more than that, so they hold the
  truth more often than 95 %.
- **offset**: outlines are off as a whole, by 0.25 px (standard deviation): the error that intervals allow for.
- **rough**: outlines wander by 0.7 px (standard deviation), correlated over 2 px.
- **blurred**: an image with contrast 1 and noise 0.25, blurred by 1.5 px, cut at a level that is off by 0.05 (standard
  deviation).

The pixel size counts as exact here. Where its uncertainty is given (`--pixel-size-sd 2%`, `pixel_size_rel_sd` in the
sidecar or the analysis, `pixel_size_sd` in a manifest), it is added in quadrature to every interval at the end, to the
power of the length in the number (1 for lengths, 2 for areas, 3 for volumes, -2 for densities per area, 0 for angles).

Above 98 %, by design: all that is measured from exact masks; and rates and velocities, whose intervals allow the
outlines of every frame to be off by themselves, while the faults here are the same in all frames of a twin.

Known to stay below 90 %, or to be wider than they need be:

- Velocities of small discs after a blur: the shift of the outline named below becomes less as a disc grows, so that a
  disc of 6 to 14 px reads 1 % fast. The end towards zero of `radial_velocity` allows for a blur of up to 1.5 px, and
  `front_velocity` for the outlines. Rates of pits undo the same to second order, in the end of the interval it moves.
- Small bodies after a blur (voids, dead metal): blur moves the outline of a ball of radius R inwards by s^2 / R (in
  a plane s^2 / 2R), 0.4 px for s = 1.5 px and R = 6 px. A mask does not tell s: high ends of volumes, fractions,
  diameters and contact allow for 1.5 px, and so are wide where the image was sharp. At 2 px 75 % of the void
  fractions and 55 % of the contact losses hold.
- Contact angles of rough caps under 25 px of radius: with roughness of 0.7 px over some 60 px of outline one cannot
  tell a drop from another shape. The angle is that of the nearest circle, turned to the outline where that leaves it
  (flag `faceted-contact`), and its interval then holds both; an angle that is unsure by 30 degrees is refused. How
  rough a mask is, the edge of the substrate says too: a short outline may look smooth by chance.
- Tips, forks and lengths of trees after a blur of 1.5 px, where branches are 4 to 9 px wide and 4.5 px apart: stubs
  go, and about 9 in 10 intervals hold. Counts allow for limits of spurs from half to twice the usual one, for
  branches that touch (loops, second roots) and for gaps that may be breaks (3 px or a branch width); heights for
  both digitised ends and for the roughness of the outline.
- Distances of voids on rough masks, which are those of the nearest bumps: the high end allows for the nearest of ten,
  as rough as the interface there. The spread of an SEI whose faces wander is not in the table: nothing in a mask tells
  which of it is real.
- Penetration depths of rough and blurred masks are half a pixel too short: bumps of the electrode come nearer, and
  blur takes from round tips. High ends allow for the bump that the way starts from, over the face around it, and for
  a blur of 1.5 px of a tip as round as this one; exact masks are held too often for that. Where walls wander by 1 px
  over 3 px, needles of 4 px break: about 84 % hold.
- The tortuosity factor where walls wander by 0.7 px around grains of 8 voxels: to diffusion such a wall is rougher, and
  low ends allow for pores narrower by it, twice what is needed. The factor is 3 % too large on grains of 8 voxels,
  less the finer the grid. Angles between branches allow for how rough the outlines are.
- Pores and pits after a blur: what is narrower than 6 px may be gone, and no number tells.
- The instantaneous share of nucleation where it is 0 or 1, and wherever a frame interval is not short against the time
  of nucleation: the interval holds every onset within a frame, and so the truth in 97 of 100 series and more.

"""


def main() -> None:
    """Run the scenes and write ``accuracy.csv`` and ``accuracy.md``."""
    parser = argparse.ArgumentParser(prog="python -m seg.accuracy", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--share", type=float, default=1.0, metavar="S", help="of the twins of a full run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=[], metavar="NAME")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args.out.mkdir(parents=True, exist_ok=True)
    stored = args.out / "accuracy.csv"
    whole = pd.DataFrame(columns=["share", "seed", *COLUMNS])
    if stored.exists():
        whole = pd.read_csv(stored)
        whole = whole[(whole["share"] == args.share) & (whole["seed"] == args.seed)]
    done = set(zip(whole["scene"], whole["masks"], strict=True))
    options = "".join(
        f" --{name} {value:g}" for name, value, usual in (("share", args.share, 1.0), ("seed", args.seed, 0))
        if value != usual
    )  # fmt: skip
    twins = sum(n_twins(scene, args.share) * len(scene.faults) for scene in SCENES.values()
                if not args.scenes or scene.name in args.scenes)  # fmt: skip
    head = HEAD.format(options=options, version=__version__, twins=twins)
    for table in run(share=args.share, seed=args.seed, names=tuple(args.scenes), done=done):
        logger.info("%s, %s masks", table["scene"].iloc[0], table["masks"].iloc[0])
        keyed = table.assign(share=args.share, seed=args.seed)[["share", "seed", *COLUMNS]]
        whole = pd.concat([whole, keyed], ignore_index=True) if len(whole) else keyed
        write_table(whole, stored)
        (args.out / "accuracy.md").write_text(head + as_markdown(whole), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
