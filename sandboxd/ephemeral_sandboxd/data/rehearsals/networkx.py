# A layout needs numpy; most graphs are drawn.
import sys

import networkx as nx

graph = nx.path_graph(4)
nx.shortest_path(graph, 0, 3)
nx.degree_centrality(graph)
try:
    layout = nx.spring_layout(graph, seed=0)
except ImportError:
    pass
else:
    if "scipy" in sys.modules:
        nx.pagerank(graph)
    if "matplotlib.pyplot" in sys.modules:
        plt = sys.modules["matplotlib.pyplot"]
        figure, axes = plt.subplots()
        nx.draw(graph, layout, ax=axes, with_labels=True)
        plt.close(figure)
