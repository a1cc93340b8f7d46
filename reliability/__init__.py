"""How hard mertools is to break: the long runs behind docs/reliability.md, each a command with its record beside it."""
