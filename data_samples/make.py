"""Make the experiments of this folder again, bit for bit: ``python data_samples/make.py``."""

from pathlib import Path

from seg.synthetic import SAMPLES, make_sample, write_experiment

if __name__ == "__main__":
    for name in SAMPLES:
        folder = Path(__file__).parent / name
        write_experiment(make_sample(name), folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder.name:<8} {size / 1e6:.2f} MB")
