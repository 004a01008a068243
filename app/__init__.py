"""The two faces: the aft-lens command and the Streamlit app."""
