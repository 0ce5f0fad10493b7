"""How a process ends, recorded in its runs: normal exit, exit status, uncaught exception, signal; and what forks do not do.

Hooks are installed when the first run starts. They call what was there before, and a signal ends the process as it would
have without us. Imports built-in modules only: `signal` itself imports enum, which takes milliseconds.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found, unused-ignore]
import _thread
import atexit
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

EXIT_S = 0.15
"""Longest time that the end of a process waits for its runs to be written."""
SIGNALS = ("SIGTERM", "SIGHUP", "SIGXCPU")
"""Signals that end a process and whose default action writes nothing."""
HANGING_S = 1.0
"""Time that the main thread has to handle a signal before the process is ended without it."""
SIGNAL_COUNTS_S = 600.0
"""Time in which a script that handles a signal by itself ends because of it."""
TRACEBACK_LENGTH = 50_000
"""Most characters of a stored traceback."""

_main_ident = _thread.get_ident()


class Recording:
    """What can be ended when the process ends."""

    @property
    def stopped_by(self) -> str | None:
        """The viewer who asked the script to stop; None if nobody has."""
        raise NotImplementedError

    def end(self, final: dict[str, Any], deadline: float | None) -> None:
        """End with this event, waiting at most until `deadline` of the monotonic clock, or not at all if that is None."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Record nothing from now on, in a forked process."""
        raise NotImplementedError


class _Process:
    """What this process has seen of its own end."""

    def __init__(self) -> None:
        self.runs: list[Recording] = []
        """Runs that are being recorded."""
        self.exception: tuple[str, str] | None = None
        """Message and traceback of an uncaught exception."""
        self.interrupted = False
        """Whether KeyboardInterrupt was not caught."""
        self.exit_status: int | None = None
        self.signal = 0
        """The last signal that arrived; 0 if there was none."""
        self.previous_handlers: dict[int, Any] = {}
        """Handlers of signals before ours."""
        self.wakeup: tuple[int, int] | None = None
        """Both ends of the pipe that receives the numbers of signals."""
        self.signaled_at = 0.0
        """When it arrived."""
        self.must_die_at = float("inf")
        """When the process is ended although its main thread does not handle the signal."""
        self.is_hooked = False
        """Whether exceptions and exit statuses are noticed."""
        self.exits_hooked = False
        """Whether exits and forks are noticed."""


_process = _Process()


def watch(run: Recording, is_guest: bool = False) -> None:
    """End this run when the process ends. Another process notices exceptions and signals that end the one of a guest."""
    if not _process.exits_hooked:
        _process.exits_hooked = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child)
    if not is_guest:
        if not _process.is_hooked:
            _process.is_hooked = True
            _hook()
        _install_signal_handlers()
    _process.runs.append(run)


def newest() -> Recording | None:
    """The newest run that is being recorded; None if there is none."""
    return _process.runs[-1] if _process.runs else None


def forget(run: Recording) -> None:
    """A run has ended by itself."""
    if run in _process.runs:
        _process.runs.remove(run)


def _hook() -> None:
    global _previous_excepthook, _previous_exit
    _previous_excepthook, sys.excepthook = sys.excepthook, _excepthook
    _previous_exit, sys.exit = sys.exit, _exit


_previous_excepthook: Any = sys.excepthook
_previous_exit: Any = sys.exit


# --- normal and abnormal exits ---------------------------------------------------------------------------------


def _exit(status: Any = None, /) -> Any:
    """`sys.exit`, which leaves no other trace of the status."""
    _process.exit_status = status_of(status)
    return _previous_exit(status)


def status_of(code: object) -> int:
    """The exit status that belongs to the argument of `sys.exit`."""
    return 0 if code is None else int(code) if isinstance(code, int) else 1


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _process.interrupted = True
    elif _process.runs:
        _process.exception = describe(kind, error, traceback)
    _previous_excepthook(kind, error, traceback)


def describe(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> tuple[str, str]:
    """Message and traceback of an exception. Never raises."""
    try:
        from traceback import format_exception

        text = "".join(format_exception(kind, error, traceback))
    except Exception:
        text = ""
    try:
        message = str(error)
    except Exception:
        message = ""
    name = kind.__qualname__
    return f"{name}: {message}"[:2000] if message else name, text[-TRACEBACK_LENGTH:]


def _at_exit() -> None:
    deadline = time.monotonic() + EXIT_S
    _read_signals()
    for run in list(_process.runs):
        run.end(final_event(run.stopped_by), deadline)


def final_event(stopped_by: str | None) -> dict[str, Any]:
    """The last event of a run of a process that ends now. `stopped_by` is the viewer who asked it to stop."""
    if _process.exception is not None:
        message, traceback = _process.exception
        return {"type": "Failed", "message": message, "traceback": traceback}
    if stopped_by is not None:
        return stopped(f"stopped by {stopped_by or 'a viewer'}")
    if _process.signal and time.monotonic() - _process.signaled_at < SIGNAL_COUNTS_S:
        return stopped(f"signal {signal_name(_process.signal)}")
    if _process.interrupted:
        return stopped("KeyboardInterrupt")
    if _process.exit_status:
        return {"type": "Failed", "message": f"the script ended with exit status {_process.exit_status}"}
    return {"type": "ScriptEnded", "outcome": "finished", "exit_status": _process.exit_status}


def stopped(reason: str) -> dict[str, Any]:
    """The last event of a run that was stopped."""
    return {"type": "ScriptEnded", "outcome": "stopped", "reason": reason, "exit_status": None}


# --- signals -------------------------------------------------------------------------------------------------


def signal_name(number: int) -> str:
    """Name of a signal, such as SIGTERM."""
    names = [name for name in dir(_signal) if name.startswith("SIG") and name[3] != "_"]
    return next((name for name in names if getattr(_signal, name) == number), str(number))


def _install_signal_handlers() -> None:
    """Notice signals from now on. Only the main thread can."""
    for name in SIGNALS:
        number = int(getattr(_signal, name))
        try:
            handler = _signal.getsignal(number)
            if handler is not _on_signal and handler is not None and handler != _signal.SIG_IGN:
                _signal.signal(number, _on_signal)
                _process.previous_handlers[number] = handler
        except (TypeError, ValueError, OSError):  # not in the main thread
            return
    if _process.wakeup is None:
        _install_wakeup()


def _install_wakeup() -> None:
    """Let the system write the numbers of signals to a pipe, so that they are seen while the main thread is busy in C."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    previous = _signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    if previous != -1:  # an event loop uses it
        _signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        for end in ends:
            os.close(end)
        return
    _process.wakeup = ends


def _on_signal(number: int, frame: Any) -> None:
    """Record that the signal came, then do what would have been done without us."""
    previous = _process.previous_handlers.get(number, _signal.SIG_DFL)
    _process.signal, _process.signaled_at = number, time.monotonic()
    if callable(previous):
        previous(number, frame)
        return
    if previous == _signal.SIG_IGN:
        return
    deadline = time.monotonic() + EXIT_S
    for run in list(_process.runs):
        run.end(stopped(f"signal {signal_name(number)}"), deadline)
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _read_signals() -> None:
    """Notice the signals that have come, whoever handles them."""
    if _process.wakeup is None:
        return
    try:
        numbers = os.read(_process.wakeup[0], 4096)
    except OSError:
        return
    for number in numbers:
        if number in _process.previous_handlers:
            _process.signal, _process.signaled_at = number, time.monotonic()
            if _signal.getsignal(number) is _on_signal and not callable(_process.previous_handlers[number]):
                _process.must_die_at = time.monotonic() + HANGING_S


def check_signals() -> None:
    """End the runs if a signal has come that the main thread does not handle. Called by the writers' threads."""
    _read_signals()
    if time.monotonic() >= _process.must_die_at:
        for run in list(_process.runs):
            run.end(stopped(f"signal {signal_name(_process.signal)}"), None)


def die_if_signaled() -> None:
    """End the process if a signal should have ended it a while ago. Called by a writer's thread that has ended its run."""
    if time.monotonic() >= _process.must_die_at:
        time.sleep(EXIT_S)  # for the threads of other runs
        _die_of(_process.signal)


def _die_of(number: int) -> None:
    """End the process with the default action of a signal. Only the main thread may restore it with Python's own functions."""
    import ctypes

    ctypes.CDLL(None).signal(number, 0)
    os.kill(os.getpid(), number)


# --- the main thread ---------------------------------------------------------------------------------------------


def main_ident() -> int:
    """Identity of the main thread."""
    threading = sys.modules.get("threading")
    return (threading.main_thread().ident or _main_ident) if threading is not None else _main_ident


def is_main_thread() -> bool:
    """Whether this is the main thread."""
    return _thread.get_ident() == main_ident()


def interrupt_main() -> None:
    """Raise KeyboardInterrupt in the main thread, even where it waits, or call the script's own handler of SIGINT."""
    if callable(_signal.getsignal(_signal.SIGINT)):
        _signal.pthread_kill(main_ident(), _signal.SIGINT)
        return
    import ctypes  # SIGINT is ignored, as in `nohup python train.py &`

    error = ctypes.py_object(KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main_ident()), error)


# --- forks -----------------------------------------------------------------------------------------------------


def _in_child() -> None:
    """A forked process, such as a DataLoader worker, records nothing and handles signals as if there were no runs."""
    global _main_ident
    _main_ident = _thread.get_ident()
    runs, _process.runs = _process.runs, []
    for run in runs:
        run.abandon()
    for number, handler in _process.previous_handlers.items():
        try:
            if _signal.getsignal(number) is _on_signal:
                _signal.signal(number, handler)
        except (TypeError, ValueError, OSError):
            pass
    _process.previous_handlers = {}
    if _process.wakeup is not None:
        try:
            if _signal.set_wakeup_fd(-1) not in (-1, _process.wakeup[1]):
                pass
        except ValueError:
            pass
        for end in _process.wakeup:
            os.close(end)
    _process.wakeup, _process.signal, _process.must_die_at = None, 0, float("inf")
    _process.exception, _process.interrupted, _process.exit_status = None, False, None
