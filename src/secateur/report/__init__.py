"""Shows what a run did: `report.json` (records), the printed table (tables) and one HTML file (html). No torch here."""
