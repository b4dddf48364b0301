() => {
    const back = it => { it.scrollTop = it.closest('.ssd-root')?.dataset[it.dataset.of] || 0 };
    setTimeout(() => document.querySelectorAll('.ssd .scroll').forEach(back), 50);
    return [];
}
