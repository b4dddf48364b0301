import gradio as gr

pictures = []


def added(picture):
    pictures.append(picture)
    return list(pictures)


gr.Interface(added, gr.Image(type="pil"), gr.Gallery(format="png")).launch()
