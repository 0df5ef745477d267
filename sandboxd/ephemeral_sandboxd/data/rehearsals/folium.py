import folium
import folium.plugins

chart = folium.Map([1, 2])
folium.Marker([1, 2], popup="a").add_to(chart)
folium.plugins.MarkerCluster().add_to(chart)
chart.get_root().render()
