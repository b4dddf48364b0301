import gradio as gr


def count(content):
    return len(content)


gr.Interface(count, gr.File(type="binary"), gr.Number()).launch()
