"""Print versions, backends, threads and caches: what to put into a report of a problem."""

import json

import mixers
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers info
  mixers info --json"""


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments):
    found = mixers.info()
    if arguments.json:
        print(json.dumps(found))
        return
    table = shared.table("", "")
    table.show_header = False
    for name, value in found.items():
        table.add_row(name, str(value))
    shared.console().print(table)
