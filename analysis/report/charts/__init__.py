"""Charts as inline SVG: the colours come from the page, the text stays text, equal input gives equal bytes."""
