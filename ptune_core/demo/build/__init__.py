"""How the demo model and its data were made: word lists, a grammar of reviews, and the pretraining script."""
