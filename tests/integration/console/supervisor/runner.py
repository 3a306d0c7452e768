"""Runs the real Supervisor with the children of a JSON file, so that its behaviour can be seen from outside.

python -m tests.integration.console.supervisor.runner FOLDER CHILDREN.json HTTP
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from console.supervisor.children import Child
from console.supervisor.process import prefixed
from console.supervisor.supervise import Supervisor

if __name__ == "__main__":
    folder, spec, http = sys.argv[1:]
    children = [
        Child(name=name, command=tuple(command), needs_database=False)
        for name, command in json.loads(Path(spec).read_text())
    ]
    supervisor = Supervisor(children, os.environ, Path(folder), write=prefixed())
    asyncio.run(
        supervisor.run(
            prepare_database=lambda: None, http=http, announce=lambda seconds: print("announced", flush=True)
        )
    )
