import gradio as gr

first = gr.Interface(lambda path: path, gr.File(), gr.File())
second = gr.Interface(lambda path: path, gr.Image(type="filepath"), gr.Image())
gr.TabbedInterface([first, second], ["Files", "Pictures"]).launch()
