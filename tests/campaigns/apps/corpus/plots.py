import gradio as gr
import pandas as pd

table = pd.DataFrame({"x": [1, 2, 3], "y": [3, 1, 2]})


def scaled(factor):
    return table.assign(y=table.y * factor)


gr.Interface(scaled, gr.Slider(1, 9, 2), gr.LinePlot(x="x", y="y")).launch()
