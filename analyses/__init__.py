"""One module a question; each returns a frozen dataclass that can save itself."""
