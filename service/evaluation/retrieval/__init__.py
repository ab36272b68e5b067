"""Evaluate retrieval: data sets, protocols, metrics, baselines, reports."""
