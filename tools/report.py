"""Adds up the JUnit results of all suites: what failed, what this machine could not run, the totals.

A skipped test is a failure, unless its reason starts with "hardware:": that one is listed as not run.
"""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def reason(case: ET.Element) -> str:
    """What a skipped case says: pytest puts it into the message, GoogleTest into the output."""
    skipped = case.find("skipped")
    texts = [] if skipped is None else [skipped.get("message", ""), skipped.text or ""]
    texts += [out.text or "" for out in case.findall("system-out")]
    for line in "\n".join(texts).splitlines():
        if "hardware:" in line:
            return line[line.index("hardware:") :].strip()
    return " ".join(texts[:1]).strip() or "no reason given"


def main(folder: Path) -> int:
    passed, failed, not_run = 0, list[str](), list[str]()
    for path in sorted(folder.glob("*.xml")):
        count = bad = 0
        for case in ET.parse(path).iter("testcase"):
            name = f"{path.stem}: {case.get('classname', '')}.{case.get('name', '')}"
            if (
                case.find("failure") is not None
                or case.find("error") is not None
                or case.get("status") == "fail"
            ):
                failed.append(name)
                bad += 1
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                why = reason(case)
                if why.startswith("hardware:"):
                    not_run.append(f"{name} ({why})")
                else:
                    failed.append(f"{name} (skipped: {why})")
                    bad += 1
            else:
                count += 1
        passed += count
        print(f"{path.stem:14} {count} passed, {bad} failed")
        if bad == 0 and (folder / f"{path.stem}.failed").exists():
            failed.append(f"{path.stem}: the suite itself failed")
    for marker in sorted(folder.glob("*.failed")):
        if not marker.with_suffix(".xml").exists():
            failed.append(f"{marker.stem}: the suite left no results")
    for line in not_run:
        print(f"not run  {line}")
    for line in failed:
        print(f"FAILED   {line}")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
