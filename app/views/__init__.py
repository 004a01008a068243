"""Result dataclass in, figure out; no Streamlit here."""
