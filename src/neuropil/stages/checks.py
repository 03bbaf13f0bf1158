"""Lines of `doctor` and `verify`: what was looked at, whether it is sound, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from neuropil.stages import StageResult

State = Literal["ok", "absent", "warning", "broken"]
_MARKS: dict[State, str] = {"ok": "ok", "absent": "-", "warning": "warning", "broken": "BROKEN"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : of the thing
    state : "absent" is optional and not there; "broken" is the only one that ends with exit code 2
    found : in words
    advice : what to do; empty where nothing needs to be done
    """

    name: str
    state: State
    found: str
    advice: str = ""


def checked(name: str, look: Callable[[], str], advice: str) -> Check:
    """Return what `look` says; broken, with the advice, if it raises."""
    try:
        return Check(name, "ok", look())
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        return Check(name, "broken", reason, advice)


def report(title: str, checks: Sequence[Check]) -> StageResult:
    """Write one line for each check, what to do below it, and the sum of it all.

    >>> print(report("thing", [Check("disk", "warning", "full", "free some")]).summary)
    thing
      disk           warning  full
                              -> free some
    1 warning
    """
    lines = [title]
    for one in checks:
        lines.append(f"  {one.name:<14} {_MARKS[one.state]:<8} {one.found}")
        if one.advice:
            lines.append(f"{'':26}-> {one.advice}")
    broken, warnings = ([one for one in checks if one.state == state] for state in ("broken", "warning"))
    words = [f"{len(broken)} broken"] if broken else []
    words += [f"{len(warnings)} warning{'s' * (len(warnings) > 1)}"] if warnings else []
    lines.append(", ".join(words) or "everything is in order")
    data = {"sound": not broken, "warnings": len(warnings), "checks": [asdict(one) for one in checks]}
    return StageResult("\n".join(lines), data, sound=not broken)
