"""The command lines of `epochtop config` and `epochtop notify`. What they do is imported when they are called."""

from __future__ import annotations

import tyro


def config(arguments: list[str]) -> int:
    """Show the configuration. Returns the exit status."""
    from epochtop.tui.cli.configuration.show import Config, show_configuration

    return show_configuration(tyro.cli(Config, prog="epochtop config", args=arguments))


def notify(arguments: list[str]) -> int:
    """Send a test message. Returns the exit status. Raises Invalid without `--test`."""
    from epochtop.tui.cli.configuration.notify import Notify, send_test

    return send_test(tyro.cli(Notify, prog="epochtop notify", args=arguments))
