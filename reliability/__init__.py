"""Long runs that no test makes: `python -m reliability.fuzz` (docs/reliability.md)."""
