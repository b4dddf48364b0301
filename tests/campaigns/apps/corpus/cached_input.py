import gradio as gr


@gr.cache
def same(path):
    return path


gr.Interface(same, gr.File(), gr.File()).launch()
