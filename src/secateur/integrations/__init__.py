"""Other people's trainers: each file is one of them, and imports it only when it is used."""
