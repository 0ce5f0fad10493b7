"""The viewer's side of runs on another machine. Never imports a widget."""
