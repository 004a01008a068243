"""Maps by layer and head: on one frame, in one unit, drawn alike by commands (matplotlib, Plotly) and the app."""
