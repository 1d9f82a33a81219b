"""Plain values that every other room speaks in; knows nobody."""
