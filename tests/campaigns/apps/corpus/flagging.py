import gradio as gr


def same(path):
    return path


gr.Interface(same, gr.File(), gr.File(), flagging_mode="manual").launch()
