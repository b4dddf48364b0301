import gradio as gr

paths = []


def collected(path):
    paths.append(path)
    return list(paths)


gr.Interface(collected, gr.File(), gr.Files()).launch()
