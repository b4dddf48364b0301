import gradio as gr


def darker(pixels):
    return pixels // 2


gr.Interface(darker, gr.Image(), gr.Image(format="jpeg")).launch()
