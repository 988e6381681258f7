"""Where the files that ship with the package are: configurations, sample data, default models."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from seg.errors import UsageError


def configs_dir() -> Path:
    """Folder of the shipped YAML files (``configs/``, installed as ``training.configs``)."""
    return Path(str(files("training.configs")))


def config_names(group: str) -> list[str]:
    """Names of the shipped files in ``configs/GROUP``."""
    return sorted(path.stem for path in (configs_dir() / group).glob("*.yaml"))


def config_file(group: str, name_or_path: str | Path) -> Path:
    """Path of ``configs/GROUP/NAME.yaml``, or of the user's own file; UsageError names the nearest."""
    given = Path(name_or_path)
    if given.suffix.lower() in {".yaml", ".yml", ".json"}:
        if not given.is_file():
            raise UsageError(f"There is no file {given}.")
        return given
    known = config_names(group)
    if str(name_or_path) not in known:
        near = get_close_matches(str(name_or_path), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
        raise UsageError(f"There is no {group} configuration {str(name_or_path)!r}; {hint}")
    return configs_dir() / group / f"{name_or_path}.yaml"
