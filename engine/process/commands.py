"""`python -m epochtop.engine predict` and `export`: commands for a run that has weights, each in a separate process.

The screen must not import torch, so it starts this process and passes on its output and exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.terminal.output import OutputError, drop_output, flush, write, write_error

FORMATS = ("tensorboard", "safetensors", "onnx", "torch")


def main(arguments: Sequence[str]) -> int:
    """Run a command. Returns 0, 2 for bad input, 1 for any other failure, with one line on standard error."""
    parsed = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    work: Callable[[argparse.Namespace], None] = parsed.work
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are for developers
            work(parsed)
        flush()
    except Invalid as error:
        return _complain(str(error), 2)
    except BrokenPipeError:  # the reader is gone: there is nothing to flush
        drop_output()
        return 0
    except OutputError as error:
        drop_output()
        return _complain(str(error.strerror), 1)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from epochtop.engine.job.failures import explain

        return _complain(" · ".join(filter(None, explain(error))), 1)
    return 0


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        write_error(f"epochtop: {' '.join(message.split())}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m epochtop.engine", description=__doc__)
    commands = parser.add_subparsers(required=True)
    predict = commands.add_parser("predict")
    predict.add_argument("run", type=Path)
    predict.add_argument("file", type=Path)
    predict.add_argument("--output", type=Path)
    predict.add_argument("--columns", default="", help="names, separated by commas")
    predict.add_argument("--excel-safe", action="store_true", help="escape cells that a spreadsheet would execute")
    predict.add_argument("--trust", default="", help="another owner of the run whose task may be executed")
    predict.set_defaults(work=_predict)
    export = commands.add_parser("export")
    export.add_argument("run", type=Path)
    export.add_argument("--format", choices=FORMATS, required=True)
    export.add_argument("--output", type=Path)
    export.add_argument("--trust", default="", help="another owner of the run whose task may be executed")
    export.set_defaults(work=_export)
    return parser


def _predict(parsed: argparse.Namespace) -> None:
    from epochtop.engine.inference.predict import predict

    columns = [name.strip() for name in parsed.columns.split(",") if name.strip()]
    predict(parsed.run, parsed.file, parsed.output, columns, parsed.trust, parsed.excel_safe)


def _export(parsed: argparse.Namespace) -> None:
    from epochtop.engine.inference import export as exports

    if parsed.format == "onnx":
        lines = exports.export_onnx(parsed.run, parsed.output, parsed.trust)
    else:
        lines = exports.FORMATS[parsed.format](parsed.run, parsed.output)
    for line in lines:
        write(f"{line}\n")
