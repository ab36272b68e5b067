"""Pictures for people: answers, explanations, visualizations."""
