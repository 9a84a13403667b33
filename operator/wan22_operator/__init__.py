"""Turns WanPool and WanModel resources into pools of workers, scaled by predicted work."""
