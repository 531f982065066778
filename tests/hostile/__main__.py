"""`python -m tests.hostile` lists the corpus; with a folder it writes it there, with an index of what is expected."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from tests.hostile.corpus import cases, counts


def write(folder: Path) -> int:
    """Write each case as a file by its group, and `index.json`; return how many there are."""
    index = []
    for number, case in enumerate(cases()):
        suffix, data = case.sent.stored()
        plain = re.sub(r"[^A-Za-z0-9]+", "-", case.name).strip("-")[:60]
        file = folder / case.group / f"{number:04}-{plain}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        index.append(
            {
                "name": case.identity,
                "file": str(file.relative_to(folder)),
                "sent": type(case.sent).__name__.lower(),
                "problems": sorted(case.problems),
                "harmless": case.harmless,
                "entries": case.entries,
                "seconds": case.seconds,
                "megabytes": case.megabytes,
            }
        )
    (folder / "index.json").write_text(json.dumps(index, indent=1))
    return len(index)


def main() -> None:
    if len(sys.argv) > 1:
        print(f"{write(Path(sys.argv[1]))} cases in {sys.argv[1]}")
        return
    whole = Counter[str]()
    print(f"{'group':12}{'cases':>8}{'refused':>9}{'may be answered':>17}")
    for group, counted in counts().items():
        whole.update(counted)
        print(f"{group:12}{counted['all']:8}{counted['refused']:9}{counted['may be answered']:17}")
    print(f"{'all':12}{whole['all']:8}{whole['refused']:9}{whole['may be answered']:17}")


if __name__ == "__main__":
    main()
