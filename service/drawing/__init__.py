"""Pictures of search results, explanations and visualizations."""
