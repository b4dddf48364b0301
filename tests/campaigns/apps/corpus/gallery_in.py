import gradio as gr


def reversed_gallery(pictures):
    return pictures[::-1]


gr.Interface(reversed_gallery, gr.Gallery(type="filepath"), gr.Gallery()).launch()
