import gradio as gr


def boxes(picture):
    return picture, [((1, 1, 9, 9), "a part")]


gr.Interface(boxes, gr.Image(type="pil"), gr.AnnotatedImage()).launch()
