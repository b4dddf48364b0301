import asyncio

import gradio as gr


async def later(path):
    await asyncio.sleep(0)
    return path


gr.Interface(later, gr.File(), gr.File()).launch()
