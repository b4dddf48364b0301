import gradio as gr


def same(path):
    return path


gr.Interface(same, gr.Audio(type="filepath"), gr.Audio()).launch()
