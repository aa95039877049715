def draw_similarity(cells): pass
