"""One job, in its own process; `benchmarks.accelerator` starts it."""

import importlib
import json
from pathlib import Path
import sys
import time

from benchmarks.accelerator import records
from benchmarks.accelerator.runner import SKIPPED
from benchmarks.accelerator.runner import UNFINISHED
from examples.trainer.provenance import provenance


def main(request: str) -> int:
    """Does what a JSON asks for, and writes the job's record.

    Args:
      request: of name and kind of the job, its options, the folder of all results, the
        folder of the data, and the revision of this code or "".

    Returns:
      The exit status.
    """
    asked = json.loads(request)
    folder, begun = Path(asked["folder"]), time.perf_counter()
    record = {key: asked[key] for key in ("name", "kind", "options")}
    try:
        # Found by name, so that a job imports only what it needs.
        module = importlib.import_module(f"benchmarks.accelerator.{asked['kind']}")
        results = module.measure(
            **asked["options"],
            folder=folder,
            name=asked["name"],
            data=Path(asked["data"]),
        )
    except records.Skip as reason:
        print(reason)
        return SKIPPED
    except records.Unfinished as reason:
        print(reason)
        return UNFINISHED
    about = provenance()
    if asked["revision"]:
        about["revision"] = asked["revision"]
    seconds = round(time.perf_counter() - begun, 1)
    record |= {"status": records.DONE, "seconds": seconds, **about, "results": results}
    records.write(records.path(folder, asked["name"]), record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
